//! One I/O operation, described once for every driver.
