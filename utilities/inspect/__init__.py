"""What `python -m utilities.inspect` is made of; nothing outside imports from it.

In reading order; a module imports only from lines above its own:

console, asking          what the terminal can; what can be asked
textplot, words          plots made of characters; figures as words
summary, comparison      a run at a glance; runs side by side
forecast, outlook        when a loss is reached; the same in words
pngplot                  pictures by matplotlib
samples, bits, chat      the same prompt as it learned; surprises; a conversation
stopping                 texts that end before a text
modelfolder, report      a model with its card; one page without a network
filecommands             what reads logs
modelcommands            what has a model do something
proofs                   checkpoints and journal, held against each other
pagecommand              the live page
commandline              all commands, told apart
__main__                 the process
"""
