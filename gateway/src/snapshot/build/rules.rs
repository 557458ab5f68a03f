//! The rules of a section, and the captures that their redirects take from paths.

use super::{Builder, Section};
use crate::config;
use crate::policy::first_party;
use crate::policy::path_captures::PathCaptures;
use crate::snapshot::BuildError;
use crate::snapshot::rewrites::RewriteConfig;
use crate::snapshot::rules::{self, Rule, RuleError};

impl Builder<'_> {
    pub(super) fn rules(&mut self, section: Section<'_>, rules: &[config::Rule]) -> Option<Vec<Rule>> {
        let mut captures = self.captures(section, rules)?.into_iter();
        let rules: Vec<_> = rules
            .iter()
            .map(|rule| (rule, captured(rule).and_then(|_| captures.next())))
            .map(
                |(rule, captures)| match rules::rule(rule, section.frontend, &self.maps, captures) {
                    Ok(rule) => Some(rule),
                    Err(RuleError::File(path, source)) => self.fail(BuildError::File {
                        origin: rule.origin.clone(),
                        path,
                        source,
                    }),
                    // A map that could not be read has been reported.
                    Err(RuleError::Defect(_)) if self.maps.len() < self.config.maps.len() => None,
                    Err(RuleError::Defect(message)) => self.fail(BuildError::Rule {
                        origin: rule.origin.clone(),
                        message,
                    }),
                },
            )
            .collect();
        rules.into_iter().collect()
    }

    /// By rule that has captures: how they come by. A component has as many of them as there are bits of conditions.
    fn captures(&mut self, section: Section<'_>, rules: &[config::Rule]) -> Option<Vec<PathCaptures>> {
        let of: Vec<_> = rules.iter().filter_map(captured).collect();
        let mut captures = Vec::with_capacity(of.len());
        for chunk in of.chunks(PathCaptures::PER_COMPONENT) {
            let config = RewriteConfig::of_captures(chunk);
            let component = &first_party::HEADER_REWRITE_REGEX;
            let attachment = self.attach_own(component, &section.frontend.name, &config, section)?;
            let each = (0u32..).zip(chunk);
            captures
                .extend(each.map(|(number, of)| PathCaptures::new(attachment.clone(), number, of.captures().len())));
        }
        Some(captures)
    }
}

/// Where a redirect leads that has captures.
fn captured(rule: &config::Rule) -> Option<&config::Matched> {
    match &rule.action {
        config::Action::Redirect(redirect) => match &redirect.to {
            config::RedirectTo::Matched(captured) => Some(captured),
            _ => None,
        },
        _ => None,
    }
}
