"""What basicServer.py, basicClient.py and utilities.inspect are made of.

In reading order; a module imports only from lines above its own:

errors, misc, addresses  the exception tree; small helpers; HOST:PORT
config                   the keys of a run: defaults, ranges, spelling
model, noise, data       the network and its optimizers; random signs; the text
population, generation   losses of many perturbed copies; text from a trained model
evolution                losses -> rewards -> the next state, exactly
selftest                 what all replicas must compute alike
plaindata, frames        pickled plain data; frames of bytes
protocol                 messages, and who may say what when
events                   the seam between decisions and the world
peers, steps, ledger     a client; an open step; which state is true
outbox, coordinator      what goes out; what the server decides
worker                   what a client computes
communication            sockets
runfiles, checkpoints    files of a run: errors in words; states that prove themselves
runs, runlogs            the folders of runs; their logs
options                  what is typed: command lines
display, textplot        what is seen: bars and lines; plots made of characters
setup, reporting         from options to a run; what the server says
processes                signals, local clients, exit codes
serving, client          the two processes
summary, inspect         python -m utilities.inspect
"""
