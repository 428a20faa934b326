"""Airflow glue: the DAG bundle over the watched folder, the builder of DAGs, the operators; no logic of its own."""
