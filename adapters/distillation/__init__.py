"""Make a data set for training a small student model from the answers of a teacher model. torch runs only in
child processes; `server.jobs` imports this package.
"""
