"""The web page and the REST service: one process that answers HTTP, and a child for each worker that decodes."""
