"""The service manager that started the server: its notifications, its watchdog, the socket that it passes."""
