"""All that depends on how pika works inside; pyproject.toml therefore bounds pika below its next minor version."""
