"""What all stores of files share (folders of this host, containers of Azure): the rows in them, and what is written.

A store says how its files are listed, looked at, read and made; all else is here. Imports nothing above
`connectors.sdk`.
"""
