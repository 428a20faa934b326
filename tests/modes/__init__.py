"""Every mode, end to end: package-mode × deploy-mode × containerized × {atomic, distributed} through a real Airflow."""
