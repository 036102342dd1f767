"""Make a data set for a small student from a teacher's answers. torch is only used in child processes;
`server.jobs` imports this package.
"""
