//! The INVITE session: its states, verbs and notifications.
