"""The tables and views of a new file, as the first migration creates them; later ones change them."""

#: from `lines`: one per position, with its `supply_usd` and its rank `badness` among those of its wallet
EACH_WALLET = """select wallet,
    count(*) as positions,
    case when count(supply_usd) = count(*) then sum(supply_usd) end as collateral_usd,
    case when count(debt_usd) = count(*) then sum(debt_usd) end as debt_usd,
    case when count(supply_usd) = count(*) and count(debt_usd) = count(*)
        then sum(supply_usd) - sum(debt_usd) end as net_usd,
    max(case when badness = 1 then health_factor_raw end) as health_factor_raw,
    min(health_factor) as health_factor,
    max(case when badness = 1 then chain_id end) as worst_chain_id,
    max(case when badness = 1 then deployment end) as worst_deployment,
    max(case when badness = 1 then account end) as worst_account,
    max(case when badness = 1 then position_group end) as worst_position_group,
    min(block_number) as oldest_block_number
from lines group by wallet"""

INITIAL = (
    """
create table deployments (
    chain_id integer not null,
    deployment text not null,
    protocol text not null,
    accounts text not null,             -- borrowers | all
    block_number integer,               -- the snapshot every row of the deployment carries
    block_hash text,
    block_timestamp integer,            -- unix seconds
    revision text,                      -- the code that runs there
    state text not null,                -- new | ok | incomplete | unverified | failed
    note text,
    complete_from integer,              -- first block whose logs were available, where history is pruned
    synced_at integer,                  -- unix seconds
    primary key (chain_id, deployment)
) strict;

create table snapshots (                -- the whole market of the last snapshot, for evaluation without a node
    chain_id integer not null,
    deployment text not null,
    market text not null,
    primary key (chain_id, deployment)
) strict;

create table positions (                -- written whole at every snapshot, so no index but the key pays
    chain_id integer not null,
    deployment text not null,
    protocol text not null,
    account text not null collate nocase,
    position_group text not null,
    owner text collate nocase,
    owner_via text,
    wallet text collate nocase,
    mode text,
    collateral_value_raw text,
    liquidation_limit_raw text,
    debt_value_raw text,
    health_factor_raw text,
    health_factor real,
    health_factor_accrued_raw text,
    health_factor_accrued real,
    next_health_factor_raw text,
    next_health_factor real,
    collateral_usd real,
    debt_usd real,
    net_usd real,
    leverage real,
    ltv real,
    status text not null,
    blocked_by text,
    block_number integer not null,
    block_hash text not null,
    primary key (chain_id, deployment, account, position_group)
) strict, without rowid;

create table balances (
    chain_id integer not null,
    deployment text not null,
    account text not null collate nocase,
    position_group text not null,
    asset text not null collate nocase,
    market text not null collate nocase, -- the contract that keeps it: aToken, debt token, cToken, Comet, Vat
    symbol text not null,
    side text not null,
    scaled_raw text not null,
    amount_raw text not null,
    amount real not null,
    value_usd real,
    is_collateral integer not null,
    block_number integer not null,
    primary key (chain_id, deployment, account, position_group, market, asset, side)
) strict, without rowid;

create table assets (
    chain_id integer not null,
    asset text not null collate nocase,
    symbol text not null,
    decimals integer not null,
    primary key (chain_id, asset)
) strict;

create table markets (
    chain_id integer not null,
    deployment text not null,
    protocol text not null,
    position_group text not null,
    asset text not null collate nocase,
    market text not null collate nocase,
    symbol text not null,
    decimals integer not null,
    price_raw text,
    price_usd real,
    supply_index_raw text,
    debt_index_raw text,
    supply_rate real,
    borrow_rate real,
    ltv real,
    liquidation_threshold real,
    liquidation_bonus real,
    supply_cap_raw text,
    borrow_cap_raw text,
    total_supply_raw text,
    total_debt_raw text,
    active integer,
    frozen integer,
    paused integer,
    block_number integer not null,
    primary key (chain_id, deployment, position_group, market, asset)
) strict;

create table states (                   -- positions as last read, before projection
    chain_id integer not null,
    deployment text not null,
    account text not null collate nocase,
    position_group text not null,
    block_number integer not null,
    state text not null,
    primary key (chain_id, deployment, account, position_group)
) strict, without rowid;

create table events (                   -- who was touched, and when first and last
    chain_id integer not null,
    deployment text not null,
    account text not null collate nocase,
    position_group text not null,
    first_block integer not null,
    last_block integer not null,
    primary key (chain_id, deployment, account, position_group)
) strict, without rowid;

create table registry (                 -- positions that a contract numbers itself (Maker's CdpManager)
    chain_id integer not null,
    deployment text not null,
    number integer not null,
    account text not null collate nocase,
    position_group text not null,
    block_number integer not null,      -- the block at which it was read
    primary key (chain_id, deployment, number)
) strict, without rowid;

create table blocks (
    chain_id integer not null,
    number integer not null,
    hash text not null,
    timestamp integer not null,         -- unix seconds
    primary key (chain_id, number)
) strict, without rowid;

create table synced_ranges (            -- source: "activity", or address:topic0 of a discovery log
    chain_id integer not null,
    deployment text not null,
    source text not null,
    from_block integer not null,
    to_block integer not null,
    primary key (chain_id, deployment, source, from_block)
) strict, without rowid;

create table health_history (
    chain_id integer not null,
    deployment text not null,
    account text not null collate nocase,
    position_group text not null,
    block_number integer not null,
    block_timestamp integer not null,
    health_factor_raw text,
    collateral_usd real,
    debt_usd real,
    status text not null,
    primary key (chain_id, deployment, account, position_group, block_number)
) strict, without rowid;

create table audits (
    id integer primary key,
    chain_id integer not null,
    deployment text not null,
    at integer not null,                -- unix seconds
    block_number integer,
    block_hash text,
    kind text not null,                 -- verify | self-audit | reconciliation | omitted-logs | reorg
    checked integer not null,
    mismatches integer not null,
    detail text                         -- JSON
) strict;

create table runs (
    id integer primary key,
    chain_id integer not null,
    started_at integer not null,        -- unix seconds
    finished_at integer,
    block_number integer,
    requests integer not null default 0,
    retries integer not null default 0,
    logs integer not null default 0,
    positions_read integer not null default 0
) strict;

create view at_risk as
select * from positions where status in ('at-risk', 'liquidatable') order by health_factor is null, health_factor;

create view wallets as
with idle as (                          -- supply that backs no debt still belongs to the wallet
    select chain_id, deployment, account, position_group,
        case when count(value_usd) = count(*) then sum(value_usd) end as usd
    from balances where side = 'supply' and is_collateral = 0
    group by chain_id, deployment, account, position_group
), lines as (
    select p.*, case when i.account is null then p.collateral_usd else p.collateral_usd + i.usd end as supply_usd,
        row_number() over (
            partition by p.wallet order by p.health_factor is null, p.health_factor, p.chain_id, p.deployment
        ) as badness
    from positions p left join idle i using (chain_id, deployment, account, position_group)
)
"""
    + EACH_WALLET
    + """;

create view sync_status as
select d.*,
    (select count(*) from positions p where p.chain_id = d.chain_id and p.deployment = d.deployment) as positions,
    (select count(*) from positions p where p.chain_id = d.chain_id and p.deployment = d.deployment
        and p.status in ('at-risk', 'liquidatable')) as at_risk,
    (select requests from runs r where r.chain_id = d.chain_id order by id desc limit 1) as requests
from deployments d;
"""
)

DISPUTES = """
create table disputes (                 -- rows about which two endpoints contradict each other, until two say the same
    chain_id integer not null,
    deployment text not null,
    account text not null collate nocase,
    position_group text not null,
    block_number integer not null,      -- of the snapshot that was contradicted first
    primary key (chain_id, deployment, account, position_group)
) strict, without rowid
"""

DOUBTED = """
create table doubted (                  -- whom an older version may have taken for a borrower or a holder without cause
    chain_id integer not null,
    deployment text not null,
    account text not null collate nocase,
    position_group text not null,
    primary key (chain_id, deployment, account, position_group)
) strict, without rowid
"""

LIQUIDATIONS = """
create table liquidations (             -- what logs tell of liquidations, one row a log
    chain_id integer not null,
    deployment text not null,
    protocol text not null,
    block_number integer not null,
    block_hash text not null,
    log_index integer not null,         -- counted through the whole block, whatever the node counts by
    block_timestamp integer not null,   -- unix seconds
    transaction_hash text not null,
    account text not null collate nocase,
    position_group text not null,
    liquidator text collate nocase,     -- null where the log does not say: Maker
    debt_asset text collate nocase,     -- null with what was repaid: a log of seized collateral alone
    repaid_raw text,
    repaid real,
    repaid_usd real,                    -- null unless a price of that time is known
    collateral_asset text collate nocase, -- null with what was seized: a log of repaid debt alone
    seized_raw text,                    -- Compound V2: of the cToken
    seized real,
    seized_usd real,
    primary key (chain_id, deployment, block_hash, log_index)
) strict, without rowid;
create index liquidations_by_block on liquidations (chain_id, block_number);
create index liquidations_by_account on liquidations (account);
"""
