"""What basicServer.py, basicClient.py and utilities.inspect are made of.

In reading order; a module imports only from lines above its own:

errors, misc, addresses  the exception tree; small helpers; HOST:PORT
disk                     all that a run writes goes through it
descriptors, causes      how many connections; why an address cannot be used
manners, machine         when a guest works; priority, mains, a folder for settings
hints, doctor            what keeps clients away, with the commands that help; checks
complaints, joincodes    lines that a log can bear; the shared secret as people type it
progress, config         what changes as a run goes on; the keys of a run
model, noise, data       the network and its optimizers; random signs; the text
outputs, population      losses of many perturbed copies; of their output layer alone
generation               text from a trained model
whitening, rewards       directions that fit what they multiply; an int8 for each trial
nodes                    what trials tell of the sums inside their window
products                 sums over trials of reward times signs, exactly
evolution, sums          losses -> rewards -> the next state, exactly; checks of sums
losses                   what the server makes of losses
scoring, kept            the losses of trials; what was drawn for them
textfiles, unknown       reading texts; the characters that a vocabulary does not hold
selftest, engine         what all replicas must compute alike; who computes it
scheduling               which part of it each process of a client computes
growth                   a trained state for a model with more units
plaindata, moulds        pickled plain data; what differs in numbers alone
frames                   frames of bytes
protocol, wire           messages; their bytes, and who may say what when
handshake, sealing       proof of the secret, before all else; records that prove it
sessions                 one end of a connection, from its first byte on
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
names                    what clients are called
orders, coordinator      what the server is told and orders; what it decides
worker                   what a client computes
outgoing, lines          what waits to be sent; sockets and TLS
communication            the server's hub of many clients
connection, codefiles    the client's one connection; where join codes are kept
lastserver               where it is remembered who was reached
reach                    names, routes, this machine's addresses
runfiles, checkpoints    files of a run: errors in words; states that prove themselves
logfiles, records        the logs as they are read; what config.json may hold
statefiles               which checkpoints lie there
scales, curves, plots    ranges and round numbers; the logs as curves; a picture's data
svgplot, trained         the picture itself; a model that can write
runs, runlogs, credits   the folders of runs; their logs; who has taught them
journal, recovery        the record of steps; the newest state, after any crash
export, downloads        weights for other programs; files that the page gives away
yardsticks               what trivial methods reach on a run's text
sessionfiles, follow     what a server tells of itself; logs as they grow
feed, page, pageserver   what is new of a run; who is told what; connections
joinoptions, options     what is typed: who may take part; command lines
clientoptions            what a client's user types
configfiles              keys from files, and which of several values counts
display                  what is seen: bars and lines
setup, admission         from options to a run; and to a join code, on both ends
stages                   a run that has outgrown its model, and the one after it
reporting                what the server says
crashlog                 what is left of an error that nobody expected
processes                signals, local clients, exit codes
identity                 who a client is, over restarts
shelf, team              arrays that processes share; the processes of a client
checkup                  the readings that --doctor judges
serving, client          the two processes
inspect                  python -m utilities.inspect: a package with its own list
"""
