//! The first-party acl component
