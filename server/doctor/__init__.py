"""The checks of `oneseek doctor`: what would keep a server from starting or serving well. `cli` imports this
package.
"""
