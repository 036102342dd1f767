"""Train base models and adapters with torch, transformers and peft. Serving code does not import this
package.
"""
