"""RoboShop Dispatch: takes paid orders from RabbitMQ and records each exactly once."""

__version__ = "1.0.0"
