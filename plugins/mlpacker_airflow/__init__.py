"""Airflow glue: the DAG bundle over the watched folder, the builder of DAGs, the operators. The work itself is `packer_lib`'s."""
