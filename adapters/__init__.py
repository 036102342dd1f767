"""What an adapter is, where it is found and how it comes to be, without serving; `routing` and `server`
import it.
"""
