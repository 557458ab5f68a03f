//! Values that stand in a file: `host file="hosts.txt"`.

use kdl::KdlEntry;
use miette::SourceSpan;

use super::{Context, Value};
use crate::config::diagnostics::{Code, ConfigError};
use crate::config::lists::List;

impl Value<'_> {
    /// The values of the list that it names, each read as one that stands in the configuration would be; in their order, none twice.
    /// Lines that are empty or begin with `#` are passed over. `what` is a phrase as "a host".
    pub(in crate::config) fn listed<T: Ord>(
        &self,
        what: &'static str,
        read: impl Fn(&Value<'_>) -> Option<T>,
    ) -> Option<Vec<T>> {
        let list = self.list()?;
        let ctx = self.context();
        ctx.listed.set(Some(self.span()));
        let values = values(ctx, &list, what, read);
        ctx.listed.set(None);
        let mut values = values?;
        values.sort_unstable();
        values.dedup();
        Some(values)
    }

    fn list(&self) -> Option<List> {
        let path = self.file()?;
        let ctx = self.context();
        let tenant = ctx.source.tenant_at(self.span());
        let owner = tenant.zip(ctx.folder(self.span()).cloned());
        let read = ctx.lists.borrow_mut().list(&path, owner);
        match read {
            Ok(list) => Some(list),
            Err(why) => {
                let error = ConfigError::new(Code::Io, format!("cannot read {}: {why}", path.display()));
                let error = error.label(self.span(), "named here");
                ctx.report(
                    error.help("a list is a file of UTF-8 with a value a line: see that it is there, and may be read"),
                );
                None
            }
        }
    }
}

fn values<T>(
    ctx: &Context<'_>,
    list: &List,
    what: &'static str,
    read: impl Fn(&Value<'_>) -> Option<T>,
) -> Option<Vec<T>> {
    let mut values = Vec::new();
    let mut faults = 0;
    let mut begin = list.base;
    for line in list.text.split_inclusive('\n') {
        let text = line.trim();
        let start = begin + line.len() - line.trim_start().len();
        begin += line.len();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let span = SourceSpan::new(start.into(), text.len());
        if values.len() == MAX_VALUES {
            let error = ConfigError::new(Code::Value, format!("a list has at most {MAX_VALUES} values"));
            ctx.report(
                error
                    .label(span, "one too many")
                    .help("split it: an acl may name several lists"),
            );
            return None;
        }
        if let Some(most) = ctx.one_too_many_list_values() {
            let error = ConfigError::new(Code::Value, format!("this tenant has at most {most} lines in lists"));
            ctx.report(error.label(span, "one too many").help(
                "have fewer, or let the operator allow more with `quota patterns=`, ten for each; a list counts as often as it is named",
            ));
            return None;
        }
        let mut entry = KdlEntry::new(text);
        entry.set_span(span);
        match read(&Value::new(ctx, &entry, what)) {
            Some(value) => values.push(value),
            None if faults == MAX_FAULTS => return None,
            None => faults += 1,
        }
    }
    (faults == 0).then_some(values)
}

/// Values of one list.
const MAX_VALUES: usize = 100_000;
/// Faults of one list that are looked for, and one more.
const MAX_FAULTS: usize = 20;
