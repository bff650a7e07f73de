"""The pages that people read: their code is run, their output compared, their generated parts kept up to date.

`python -m tests.docs` writes the outputs of console blocks, the page of the options and the pictures anew.
"""
