//! The BatchJob controller: pods exist only while a task really executes.
