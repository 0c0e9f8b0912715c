//! Sound cards for sipwire.
