"""What basicServer.py and basicClient.py are made of, in reading order.

errors, misc        the exception tree; small helpers
config              the keys of a run
model, noise, data  the network, its perturbations, the text
evolution           losses -> rewards -> the next state, exactly
plaindata, protocol what travels, without sockets
coordinator, worker what the server and a client decide, without I/O
communication, runs sockets; the run folder
serving, client     the two processes around them
inspect             python -m utilities.inspect
"""
