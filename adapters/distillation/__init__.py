"""From a teacher's answers to a data set for a small student, without torch outside its child processes;
`server.jobs` imports it.
"""
