"""The small bilingual base that ships with OneSeek, its two adapters and their recipe. Serving uses only its
weights.
"""
