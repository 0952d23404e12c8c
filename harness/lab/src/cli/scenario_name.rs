//! Command-line words that name scenarios, so that completions offer the names.

use std::ffi::OsStr;

use clap::{
    Arg, Command, Error,
    builder::{PossibleValue, StringValueParser, TypedValueParser},
};

use crate::lab::catalog::Catalog;

/// The commands and arguments that take such words.
const ARGUMENTS: [(&str, &str); 5] =
    [("run", "filter"), ("run", "skip"), ("list", "filter"), ("list", "skip"), ("boot", "shape")];

/// Accepts any word: a filter may be part of a name, and an unknown name gets a better message later.
#[derive(Clone, Debug)]
struct ScenarioName(Catalog);

/// Offers the catalog's names wherever an argument names a scenario.
pub(super) fn offered(mut command: Command, catalog: &Catalog) -> Command {
    for (name, argument) in ARGUMENTS {
        command = command.mut_subcommand(name, |command| {
            command
                .mut_arg(argument, |argument| argument.value_parser(ScenarioName(*catalog)).hide_possible_values(true))
        });
    }
    command
}

impl TypedValueParser for ScenarioName {
    type Value = String;

    fn parse_ref(&self, command: &Command, argument: Option<&Arg>, word: &OsStr) -> Result<String, Error> {
        StringValueParser::new().parse_ref(command, argument, word)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(self.0.scenarios.iter().map(|scenario| PossibleValue::new(scenario.name))))
    }
}
