"""The OpenAPI document and the page that shows it, made from the fields; the endpoints import it."""
