// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The program `leyden`: shows what a store holds, and what Leyden is for.

mod accept;
mod check;
mod consumer;
mod demo;
mod migrate;
mod node;
mod output;
mod payouts;
mod report;
mod story;
mod view;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use leyden_testkit::cases::Case;

use output::{Failure, Output};

/// Lightning events that stay until you say "handled".
#[derive(Parser)]
#[command(name = "leyden", version, about, arg_required_else_help = true, after_help = EXAMPLES)]
struct Arguments {
	#[command(subcommand)]
	command: Command,
}

const EXAMPLES: &str = "Examples:
  leyden demo                                   every crash, LDK alone and with Leyden
  leyden demo --case G1 --kill                  one crash, with a process that is really killed
  leyden demo --case G3 --dir demo              keep the databases ...
  leyden list --store demo/G3.leyden            ... and look at them
  leyden inspect 1 --stream monitor --store demo/G3.leyden
  leyden payouts --store node.leyden            what is owed
  leyden backup --store node.leyden --to monday.leyden    while the node runs
  leyden verify --store monday.leyden
  leyden accept --store node.leyden --yes       a database that was restored
  leyden consumer discard app --index 17 --store node.leyden --yes    a dead letter
  leyden migrate --from node.leyden --to postgres://node@db/node";

#[derive(Subcommand)]
enum Command {
	/// Crash real LDK nodes at the worst moment, with LDK alone and with Leyden, and show what
	/// happens.
	Demo(DemoArguments),
	/// Show the streams of a store and what is in them.
	List(ListArguments),
	/// Show everything about one entry, or one debt.
	Inspect(InspectArguments),
	/// Show what is owed, and what became of it.
	Payouts(PayoutsArguments),
	/// Copy a store into a new file while its node runs, and check the copy.
	Backup(BackupArguments),
	/// Check a whole store: nothing is damaged, and nothing is missing. Exit code 1 if anything is.
	Verify(VerifyArguments),
	/// Accept a database that is not the newest one, or a copy: it gets a new identity, and payouts
	/// stay frozen until an operator has looked. The node must be stopped.
	Accept(AcceptArguments),
	/// Remove, reset, rename, pause or resume a consumer, or decide on one of its dead letters. The node
	/// must be stopped.
	#[command(subcommand)]
	Consumer(ConsumerCommand),
	/// Move everything in a store to another one: indexes, ids, versions and epochs stay as they are.
	Migrate(MigrateArguments),
	/// Print a completion script for a shell.
	Completions {
		/// Which shell.
		shell: clap_complete::Shell,
	},
	/// A node of the demo in a process of its own; started by `demo --kill`.
	#[command(hide = true)]
	DemoNode {
		/// The case.
		#[arg(value_parser = case)]
		case: Case,
		/// Where its databases are.
		dir: PathBuf,
		/// With Leyden.
		#[arg(long)]
		leyden: bool,
		/// Its earlier life was killed, and left what is in the databases.
		#[arg(long)]
		resume: bool,
	},
}

#[derive(clap::Args)]
struct DemoArguments {
	/// Which case; may be given several times. All that matter without.
	#[arg(long = "case", value_name = "CASE", value_parser = shown)]
	cases: Vec<demo::Shown>,
	/// Keep the databases in this directory, for `leyden list` and `leyden inspect`.
	#[arg(long, value_name = "DIR")]
	dir: Option<PathBuf>,
	/// Run the node as a process of its own, and really kill it (SIGKILL).
	#[arg(long)]
	kill: bool,
	/// Print one JSON document.
	#[arg(long)]
	json: bool,
}

#[derive(clap::Args)]
struct StoreArguments {
	/// The store: a path, or a URL (sqlite:PATH, redb:PATH, postgres://USER@HOST/DATABASE).
	#[arg(long, value_name = "STORE")]
	store: String,
	/// The namespace in it.
	#[arg(long, value_name = "NAME", default_value = "default")]
	namespace: String,
	/// Print one JSON document.
	#[arg(long)]
	json: bool,
}

#[derive(clap::Args)]
struct ListArguments {
	#[command(flatten)]
	store: StoreArguments,
	/// Only this stream.
	#[arg(long, value_name = "NAME")]
	stream: Option<String>,
	/// Only entries that some consumer has not acked; with --consumer, that this one has not.
	#[arg(long)]
	unacked: bool,
	/// Show the state for this consumer.
	#[arg(long, value_name = "NAME")]
	consumer: Option<String>,
	/// At most this many entries per stream.
	#[arg(long, value_name = "N", default_value_t = 50)]
	limit: usize,
}

#[derive(clap::Args)]
struct InspectArguments {
	/// The entry: its id, the first digits of it, or its index. Or a debt: its id, or the first digits.
	id: String,
	#[command(flatten)]
	store: StoreArguments,
	/// The stream it is in. Needed for an index if there are several streams.
	#[arg(long, value_name = "NAME")]
	stream: Option<String>,
}

#[derive(clap::Args)]
struct PayoutsArguments {
	#[command(flatten)]
	store: StoreArguments,
	/// Those that are over as well.
	#[arg(long)]
	all: bool,
	/// At most this many.
	#[arg(long, value_name = "N", default_value_t = 100)]
	limit: usize,
}

#[derive(clap::Args)]
struct BackupArguments {
	/// The store to copy: a path, or a URL (sqlite:PATH, redb:PATH).
	#[arg(long, value_name = "STORE")]
	store: String,
	/// The file to create. It must not be there yet.
	#[arg(long, value_name = "FILE")]
	to: PathBuf,
	/// Print one JSON document.
	#[arg(long)]
	json: bool,
}

#[derive(clap::Args)]
struct VerifyArguments {
	/// The store: a path, or a URL (sqlite:PATH, redb:PATH, postgres://USER@HOST/DATABASE).
	#[arg(long, value_name = "STORE")]
	store: String,
	/// Print one JSON document.
	#[arg(long)]
	json: bool,
}

#[derive(clap::Args)]
struct AcceptArguments {
	/// The store: a path, or a URL (sqlite:PATH, redb:PATH).
	#[arg(long, value_name = "STORE")]
	store: String,
	/// The namespace in it.
	#[arg(long, value_name = "NAME", default_value = "default")]
	namespace: String,
	/// Do it; without, only what would happen is said.
	#[arg(long)]
	yes: bool,
}

#[derive(Subcommand)]
enum ConsumerCommand {
	/// Remove a consumer that nobody reads any more, and for which entries are kept for ever.
	Remove {
		#[command(flatten)]
		consumer: ConsumerArguments,
		/// Do it; without, only what would happen is said.
		#[arg(long)]
		yes: bool,
	},
	/// Set a consumer to another place of its stream. Its acks, retries and dead letters are forgotten.
	Reset {
		#[command(flatten)]
		consumer: ConsumerArguments,
		/// The last entry that it is not told of again: an index, or "beginning" or "end".
		#[arg(long, value_name = "INDEX")]
		after: String,
		/// Do it; without, only what would happen is said.
		#[arg(long)]
		yes: bool,
	},
	/// Give a consumer another name; it goes on where it was.
	Rename {
		#[command(flatten)]
		consumer: ConsumerArguments,
		/// The new name.
		#[arg(long, value_name = "NAME")]
		to: String,
	},
	/// Have nothing delivered to a consumer until it is resumed, whenever the node runs.
	Pause {
		#[command(flatten)]
		consumer: ConsumerArguments,
	},
	/// Have a paused consumer told again.
	Resume {
		#[command(flatten)]
		consumer: ConsumerArguments,
	},
	/// Have a dead letter delivered again.
	Requeue {
		#[command(flatten)]
		consumer: ConsumerArguments,
		/// The index of the entry.
		#[arg(long, value_name = "INDEX")]
		index: u64,
	},
	/// Put a dead letter aside: the consumer is never told of it, and its lane goes on.
	Discard {
		#[command(flatten)]
		consumer: ConsumerArguments,
		/// The index of the entry.
		#[arg(long, value_name = "INDEX")]
		index: u64,
		/// Do it; without, only what would happen is said.
		#[arg(long)]
		yes: bool,
	},
}

#[derive(clap::Args)]
struct ConsumerArguments {
	/// The consumer.
	name: String,
	/// The stream that it reads.
	#[arg(long, value_name = "NAME", default_value = "events")]
	stream: String,
	/// The store: a path, or a URL (sqlite:PATH, redb:PATH, postgres://USER@HOST/DATABASE).
	#[arg(long, value_name = "STORE")]
	store: String,
	/// The namespace in it.
	#[arg(long, value_name = "NAME", default_value = "default")]
	namespace: String,
}

#[derive(clap::Args)]
struct MigrateArguments {
	/// The store to move: a path, or a URL.
	#[arg(long, value_name = "STORE")]
	from: String,
	/// Where to: a path, or a URL. It must be empty, or part of a move that was interrupted.
	#[arg(long, value_name = "STORE")]
	to: String,
	/// Which namespace; all that are there without.
	#[arg(long, value_name = "NAME")]
	namespace: Option<String>,
	/// Print one JSON document.
	#[arg(long)]
	json: bool,
}

fn main() -> ExitCode {
	let mut output = Output::new();
	let arguments = match Arguments::try_parse() {
		Ok(arguments) => arguments,
		Err(error) => return refused(&error, &mut output),
	};
	let done = match arguments.command {
		Command::Demo(arguments) => demo::run(&arguments, &mut output),
		Command::List(arguments) => view::list(&arguments, &mut output),
		Command::Inspect(arguments) => view::inspect(&arguments, &mut output),
		Command::Payouts(arguments) => payouts::list(&arguments, &mut output),
		Command::Backup(arguments) => check::backup(&arguments, &mut output),
		Command::Verify(arguments) => check::verify(&arguments, &mut output),
		Command::Accept(arguments) => accept::accept(&arguments, &mut output),
		Command::Consumer(command) => consumer::run(&command, &mut output),
		Command::Migrate(arguments) => migrate::run(&arguments, &mut output),
		Command::Completions { shell } => {
			let mut script = Vec::new();
			clap_complete::generate(shell, &mut Arguments::command(), "leyden", &mut script);
			output.bytes(&script)
		},
		Command::DemoNode { case, dir, leyden, resume } => {
			node::child(case, &dir, leyden, resume, &mut output)
		},
	};
	match done {
		Ok(()) | Err(Failure::Closed) => ExitCode::SUCCESS,
		Err(Failure::Broken) => ExitCode::from(2),
		Err(Failure::Error(error)) => {
			output.error(&error);
			ExitCode::FAILURE
		},
	}
}

/// Says what is wrong with the arguments, or what was asked for with `--help`. An argument in the wrong
/// place is repeated by the parser, and may be a URL with a password.
fn refused(error: &clap::Error, output: &mut Output) -> ExitCode {
	let mut text = error.render().to_string();
	let secret = |text: &&str| ["@", "://", "password"].iter().any(|sign| text.contains(sign));
	for argument in std::env::args_os().skip(1) {
		let argument = argument.to_string_lossy();
		// An option keeps its name.
		let value = match argument.split_once('=') {
			Some((name, value)) if name.starts_with('-') => value,
			_ => &*argument,
		};
		if let Some(value) = Some(value).filter(secret) {
			let url = value.parse::<leyden::StoreUrl>();
			let shown = url.map_or("…".to_owned(), |url| url.to_string());
			text = text.replace(value, &shown);
		}
	}
	if error.use_stderr() {
		output.complaint(&text);
	} else {
		let _ = output.bytes(text.as_bytes());
	}
	ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

fn case(name: &str) -> Result<Case, String> {
	name.parse().map_err(|_| "there is no such case".to_owned())
}

fn shown(name: &str) -> Result<demo::Shown, String> {
	name.parse().map_err(|_| {
		let crashes = Case::ALL.iter().chain(&Case::SPLICES).map(|case| case.name());
		let stories = story::Story::ALL.into_iter().map(story::Story::name);
		let known: Vec<_> = crashes.chain(stories).collect();
		format!("there is no such case; there are {}", known.join(", "))
	})
}
