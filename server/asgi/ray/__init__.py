"""OneSeek as an application of Ray Serve, without the code of engines; only `deploy/ray` imports this
package.
"""
