//! What a hook is asked about, and what a call takes from it and leaves with it.

use std::sync::Arc;

use super::attachment::Attachment;
use super::attribute::Attribute;
use super::bodies::KeptByBody;
use super::exchange::{ConnectionFacts, Exchange};
use super::facts::Facts;
use super::host_memory::HostMemory;
use super::instance::Instance;
use super::kept::with_connection;
use super::state::State;
use super::tags::Tags;
use crate::config::Isolation;

/// What a hook is asked about.
pub(super) enum Subject<'a> {
    Exchange(&'a mut Box<Exchange>),
    Connection(&'a mut Arc<ConnectionFacts>),
    /// A piece of a body, which comes with the call.
    Body(&'a mut KeptByBody),
}

impl Subject<'_> {
    /// Into the store, or back out of it.
    pub(super) fn swap(&mut self, state: &mut State) {
        match self {
            Self::Exchange(exchange) => std::mem::swap(&mut state.exchange, exchange),
            Self::Connection(connection) => std::mem::swap(&mut state.exchange.connection, connection),
            Self::Body(_) => {}
        }
    }

    /// Adds the tags that a call has set. What finds no room beside those of others is told of.
    #[cold]
    pub(super) fn tag(&mut self, tags: Tags, attachment: &Attachment) {
        if let Self::Exchange(exchange) = self
            && let Some((count, left_out)) = exchange.tags.get_or_insert_default().extend(tags, attachment.tenant())
        {
            attachment.leaves_out_tags(count, &left_out);
        }
    }

    /// What its edits take is held for as long as it lasts.
    #[cold]
    pub(super) fn hold(&mut self, memory: HostMemory) {
        if let Self::Exchange(exchange) = self {
            exchange.held.push(memory);
        }
    }

    /// The instance that was kept for it.
    #[inline]
    pub(super) fn kept(&mut self, attachment: &Arc<Attachment>) -> Option<Box<Instance>> {
        let exchange = match self {
            Self::Exchange(exchange) => exchange,
            Self::Connection(_) => return None,
            Self::Body(body) => return body.instance.take(),
        };
        match attachment.isolation {
            Isolation::Reuse { .. } => None,
            Isolation::PerRequest { .. } => exchange.kept.take(attachment),
            Isolation::PerConnection { .. } => {
                with_connection(exchange.kept_by_connection.as_ref()?, |kept| kept.take(attachment))
            }
        }
    }

    pub(super) fn find(&self, needs: &[Attribute], facts: &mut Facts) {
        match self {
            Self::Exchange(exchange) => facts.of_exchange(needs, exchange),
            Self::Connection(connection) => facts.of_connection(needs, connection),
            Self::Body(_) => facts.clear(),
        }
    }
}
