"""The engine that runs replicas of a base on a Ray cluster, without HTTP; imported only by
`server.asgi.ray`.
"""
