//! PyO3: arguments in, errors and events out, no decisions.
