//! The table, walked cell by cell.

use super::table::{Permission, TABLE};
use crate::event::SessionState;
use crate::ua::VerbError;

const STATES: [SessionState; 9] = [
    SessionState::Null,
    SessionState::Calling,
    SessionState::Incoming,
    SessionState::Accepting,
    SessionState::Established,
    SessionState::Proposing,
    SessionState::Proposed,
    SessionState::Terminating,
    SessionState::Terminated,
];

#[test]
fn every_cell_of_the_table_is_allowed_silent_or_refused_with_the_states_that_are_not() {
    let mut refused = 0;
    for row in TABLE {
        for state in STATES {
            let expected = match (row.allowed.contains(&state), row.silent.contains(&state)) {
                (true, false) => Ok(Permission::Act),
                (false, true) => Ok(Permission::Silent),
                (false, false) => {
                    refused += 1;
                    Err(VerbError::WrongState { verb: row.name, state, allowed: row.allowed.to_vec() })
                }
                (true, true) => panic!("{} in {} is both", row.name, state.name()),
            };
            assert_eq!(row.verb.check(state), expected, "{} in {}", row.name, state.name());
        }
    }
    assert!(refused > 0);
}
