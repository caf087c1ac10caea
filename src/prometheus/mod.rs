//! Carries queries to a Prometheus server and brings typed answers back. No threshold, no verdict.
