"""The stack of docker-compose.airflow.yml: its text, and itself, brought up in the lab with images built there."""
