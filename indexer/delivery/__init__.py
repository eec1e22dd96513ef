"""From the file to receivers: alerts over channels, changes as a stream. Knows neither node nor rules.

Doors: `queue.enqueue` puts an alert into the file; `dispatch.Dispatch`, in a process of its own, delivers what is there to
the channels of `places.Places`; `stream.Stream` gives the changes of the list to a `receivers.Pipe` or a `receivers.Webhook`.
"""
