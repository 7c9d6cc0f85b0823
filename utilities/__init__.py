"""What basicServer.py, basicClient.py and utilities.inspect are made of.

In reading order; a module imports only from lines above its own:

errors, misc, addresses  the exception tree; small helpers; HOST:PORT
disk                     all that a run writes goes through it
descriptors, causes      how many connections; why an address cannot be used
config                   the keys of a run: defaults, ranges, spelling
model, noise, data       the network and its optimizers; random signs; the text
population, generation   losses of many perturbed copies; text from a trained model
whitening                directions that fit what they multiply
evolution, sums          losses -> rewards -> the next state, exactly; checks of sums
scoring                  the losses of trials
selftest, engine         what all replicas must compute alike; who computes it
scheduling               which part of it each process of a client computes
plaindata, frames        pickled plain data; frames of bytes
protocol, wire           messages; their bytes, and who may say what when
history                  steps that were taken: as bytes, and the newest in memory
events                   the seam between decisions and the world
peers, ledger            a client; which state is true
agreement, audits        whether answers are the same; whose are compared, who lies
lateness                 who is late, and why
steps, blocks, opening   an open step: by time; in blocks; which of both
acceptance               how a client's state becomes the true one
pacing, aggregation      how long a step lasts; who adds up trials
tally, summing           what clients report of a step; each adds up its own trials
outbox, returning        what goes out; clients that come back
orders, coordinator      what the server is told and orders; what it decides
worker                   what a client computes
outgoing, communication  what waits to be sent; sockets
runfiles, checkpoints    files of a run: errors in words; states that prove themselves
logfiles, records        the logs as they are read; what config.json may hold
statefiles               which checkpoints lie there
scales, curves, plots    ranges and round numbers; the logs as curves; a picture's data
svgplot, trained         the picture itself; a model that can write
runs, runlogs, credits   the folders of runs; their logs; who has taught them
journal, recovery        the record of steps; the newest state, after any crash
options                  what is typed: command lines
display                  what is seen: bars and lines
setup, reporting         from options to a run; what the server says
processes                signals, local clients, exit codes
shelf, team              arrays that processes share; the processes of a client
serving, client          the two processes
inspect                  python -m utilities.inspect: a package with its own list
"""
