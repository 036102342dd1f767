"""Scripts that run other LLM servers and libraries on the same weights as OneSeek, each in its own Python
environment. No other package imports them.
"""
