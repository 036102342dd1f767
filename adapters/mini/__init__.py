"""The small English and Swedish base model that ships with OneSeek, its two adapters, and the recipe that
builds them. Serving uses only the weights of the model and the adapters.
"""
