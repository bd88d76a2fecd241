// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.
//! A PostgreSQL server that nobody needs: in a directory of its own, on a Unix socket, from the
//! machine's binaries.

// That tests are skipped is said where whoever runs them looks.
#![allow(clippy::print_stderr)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

/// Set to `1` where a machine without PostgreSQL is to fail the tests rather than skip them.
pub const REQUIRE: &str = "LEYDEN_REQUIRE_POSTGRES";

/// A pooler (`pgbouncer`) in front of a server, which is gone when this is dropped.
pub struct Pooler {
	dir: PathBuf,
	process: Child,
}

impl Pooler {
	/// Starts one in a `pool_mode`; `None` if there is no pgbouncer here, which is said in one line.
	///
	/// # Panics
	/// If there is none and [`REQUIRE`] is set, or if there is one that does not start.
	pub fn start(server: &Server, pool_mode: &str) -> Option<Self> {
		let found = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer", "/usr/local/bin/pgbouncer"];
		let Some(program) = found.into_iter().find(|program| Path::new(program).exists()) else {
			assert!(std::env::var(REQUIRE).is_err(), "{REQUIRE} is set, and there is no pgbouncer");
			eprintln!("SKIPPED: there is no pgbouncer on this machine");
			return None;
		};
		let dir = server.dir.join(format!("pooler-{pool_mode}"));
		let _ = fs::remove_dir_all(&dir);
		fs::create_dir(&dir).expect("a directory for the pooler");
		let users = dir.join("users");
		fs::write(&users, "\"leyden\" \"\"\n").expect("its users");
		let config = dir.join("config");
		let text = format!(
			"[databases]\n* = host={socket} port={port}\n[pgbouncer]\nlisten_port = 6432\n\
			 unix_socket_dir = {dir}\nauth_type = trust\nauth_file = {users}\n\
			 pool_mode = {pool_mode}\ndefault_pool_size = 5\nlogfile = {dir}/log\n",
			socket = server.dir.display(),
			port = server.port,
			dir = dir.display(),
			users = users.display(),
		);
		fs::write(&config, text).expect("its configuration");
		if let Some(user) = server.user {
			let owned =
				Command::new("chown").arg("-R").arg(user).arg(&dir).status().expect("chown");
			assert!(owned.success());
		}
		let process = server
			.command(Path::new(program))
			.arg(&config)
			.stdin(Stdio::null())
			.stdout(Stdio::null())
			.stderr(Stdio::null())
			.spawn()
			.expect("pgbouncer");
		let pooler = Self { dir, process };
		let bin = binaries().expect("they were here");
		for _ in 0..6000 {
			let mut asked = Command::new(bin.join("pg_isready"));
			asked.args(["-q", "-t", "1", "-p", "6432"]).arg("-h").arg(&pooler.dir);
			if asked.status().is_ok_and(|status| status.success()) {
				return Some(pooler);
			}
		}
		panic!("pgbouncer does not start: {:?}", fs::read_to_string(pooler.dir.join("log")));
	}

	/// Returns a connection string for the server behind it.
	pub fn url(&self) -> String {
		let socket = self.dir.display().to_string().trim_start_matches('/').replace('/', "%2F");
		format!("postgres://leyden@%2F{socket}:6432/postgres")
	}
}

impl Drop for Pooler {
	fn drop(&mut self) {
		let _ =
			Command::new("pkill").args(["-KILL", "-P", &self.process.id().to_string()]).status();
		let _ = self.process.kill();
		let _ = self.process.wait();
	}
}

/// A server, which is gone when this is dropped.
pub struct Server {
	dir: PathBuf,
	process: Mutex<Option<Child>>,
	/// The user that it runs as, if this process may not.
	user: Option<&'static str>,
	/// Settings besides those that make it small.
	settings: Vec<String>,
	port: String,
}

impl Server {
	/// Makes a server and starts it; `None` if there is no PostgreSQL here, which is said in one
	/// line.
	///
	/// # Panics
	/// If there is none and [`REQUIRE`] is set, or if there is one that does not start.
	pub fn start() -> Option<Self> {
		Self::start_with(&[])
	}

	/// As [`start`](Server::start), with settings (`name=value`).
	///
	/// # Panics
	/// As [`start`](Server::start).
	pub fn start_with(settings: &[&str]) -> Option<Self> {
		let bin = binaries()?;
		let server = Self::bare(settings);
		let made = server
			.command(&bin.join("initdb"))
			.args(["--no-sync", "--auth=trust", "--username=leyden", "--encoding=UTF8", "-D"])
			.arg(server.data())
			.output()
			.expect("initdb");
		assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
		server.resume();
		Some(server)
	}

	/// A server without data.
	fn bare(settings: &[&str]) -> Self {
		static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
		let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
		// Short: the path of a socket has about a hundred bytes.
		let dir = std::env::temp_dir().join(format!("ly-pg-{}-{number}", std::process::id()));
		let _ = fs::remove_dir_all(&dir);
		fs::create_dir(&dir).expect("a directory for the server");
		// The server refuses to run as root.
		let user = is_root().then_some("postgres");
		if let Some(user) = user {
			let owned = Command::new("chown").arg(user).arg(&dir).status().expect("chown");
			assert!(owned.success(), "there is no user {user} to run the server as");
		}
		let port = settings.iter().find_map(|setting| setting.strip_prefix("port="));
		let port = port.unwrap_or("5432").to_owned();
		let settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
		Self { dir, process: Mutex::new(None), user, settings, port }
	}

	/// One that all who ask share while somebody has it.
	///
	/// # Panics
	/// As [`start`](Server::start).
	pub fn shared() -> Option<Arc<Self>> {
		static SHARED: Mutex<Weak<Server>> = Mutex::new(Weak::new());
		let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
		if let Some(server) = shared.upgrade() {
			return Some(server);
		}
		let server = Arc::new(Self::start()?);
		*shared = Arc::downgrade(&server);
		Some(server)
	}

	/// A connection string for it.
	pub fn url(&self) -> String {
		format!("postgres://leyden@%2F{}/postgres", self.socket_in_url())
	}

	/// Returns a connection string for this server or another one, whichever takes writes.
	pub fn url_with(&self, other: &Server) -> String {
		let (one, two) = (self.socket_in_url(), other.socket_in_url());
		format!("postgres://leyden@%2F{one},%2F{two}/postgres?target_session_attrs=read-write")
	}

	/// Makes a server that follows this one, and has each commit wait for it.
	///
	/// # Panics
	/// If it does not start.
	pub fn standby(&self) -> Self {
		let standby = Self::bare(&[]);
		standby.follow(self);
		standby
	}

	/// Throws everything away that this server has, and has it follow `primary`, whose commits wait
	/// for it then.
	///
	/// # Panics
	/// If it does not start.
	pub fn follow(&self, primary: &Server) {
		self.kill();
		let _ = fs::remove_dir_all(self.data());
		let bin = binaries().expect("they were here");
		let copied = self
			.command(&bin.join("pg_basebackup"))
			.args(["-R", "--checkpoint=fast", "--no-sync", "-U", "leyden", "-D"])
			.arg(self.data())
			.arg("-h")
			.arg(&primary.dir)
			.args(["-p", &primary.port])
			.output()
			.expect("pg_basebackup");
		assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
		self.resume();
		let streams = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'";
		while primary.psql(streams) != "1" {}
		primary.psql("ALTER SYSTEM SET synchronous_standby_names = '*'");
		primary.psql("SELECT pg_reload_conf()");
		while primary.psql("SELECT sync_state FROM pg_stat_replication") != "sync" {}
	}

	/// Has a server that follows another one take writes.
	///
	/// # Panics
	/// If it does not.
	pub fn promote(&self) {
		assert_eq!(self.psql("SELECT pg_promote()"), "t");
	}

	/// Where its socket is.
	pub fn socket(&self) -> &Path {
		&self.dir
	}

	/// Its data, to look at or to fill up.
	pub fn data(&self) -> PathBuf {
		self.dir.join("data")
	}

	/// Starts it again, and waits until it lets somebody in.
	///
	/// # Panics
	/// If it does not start.
	pub fn resume(&self) {
		let bin = binaries().expect("they were here");
		let log = fs::File::create(self.dir.join("log")).expect("a log");
		// Of a server that was killed; its children may need a moment to be gone.
		for _ in 0..600 {
			let mut command = self.command(&bin.join("postgres"));
			command.arg("-D").arg(self.data()).arg("-k").arg(&self.dir);
			let small = ["listen_addresses=", "shared_buffers=16MB", "max_connections=50"];
			let settings = small.iter().copied().chain(self.settings.iter().map(String::as_str));
			for setting in settings {
				command.args(["-c", setting]);
			}
			let log = log.try_clone().expect("a log");
			let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
			*self.process() = Some(child.expect("the server"));
			if self.is_ready(&bin) {
				return;
			}
		}
		panic!("the server does not start: {}", self.log());
	}

	/// Kills it as a power failure of its machine would, but for the disk's cache.
	pub fn kill(&self) {
		// A process that serves a connection may outlive the main process, and answer. The main process
		// is stopped first, so that it makes no new one.
		self.signal("STOP");
		self.signal_all("KILL");
		if let Some(mut process) = self.process().take() {
			let _ = process.wait();
		}
	}

	/// Stops its main process and those that serve connections, as a machine that hangs.
	pub fn stop(&self) {
		self.signal_all("STOP");
	}

	/// Lets them go on.
	pub fn go_on(&self) {
		self.signal_all("CONT");
	}

	/// Gives a file to the user that the server runs as, and to nobody else.
	///
	/// # Panics
	/// If that cannot be done.
	pub fn own(&self, file: &Path) {
		if let Some(user) = self.user {
			let owned = Command::new("chown").arg(user).arg(file).status().expect("chown");
			assert!(owned.success());
		}
		let closed = Command::new("chmod").arg("600").arg(file).status().expect("chmod");
		assert!(closed.success());
	}

	/// What it has logged since it was started.
	pub fn log(&self) -> String {
		fs::read_to_string(self.dir.join("log")).unwrap_or_default()
	}

	/// Runs SQL with `psql` and answers what it prints.
	///
	/// # Panics
	/// If it fails.
	pub fn psql(&self, sql: &str) -> String {
		let bin = binaries().expect("they were here");
		let mut command = Command::new(bin.join("psql"));
		command.args(["-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", "leyden", "-d", "postgres"]);
		command.arg("-h").arg(&self.dir).args(["-p", &self.port, "-c", sql]);
		let output = command.output().expect("psql");
		assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
		String::from_utf8_lossy(&output.stdout).trim().to_owned()
	}

	fn is_ready(&self, bin: &Path) -> bool {
		for _ in 0..6000 {
			let mut asked = Command::new(bin.join("pg_isready"));
			asked.args(["-q", "-t", "1", "-p", &self.port]).arg("-h").arg(&self.dir);
			let asked = asked.status();
			if asked.is_ok_and(|status| status.success()) {
				return true;
			}
			let ended = |process: &mut Child| process.try_wait().is_ok_and(|end| end.is_some());
			if self.process().as_mut().is_some_and(ended) {
				return false;
			}
		}
		false
	}

	/// The server's main process and its children, which have its number as parent.
	fn signal_all(&self, signal: &str) {
		let Some(id) = self.id() else { return };
		let _ = Command::new("pkill").args([&format!("-{signal}"), "-P", &id]).status();
		self.signal(signal);
	}

	fn signal(&self, signal: &str) {
		if let Some(id) = self.id() {
			let _ = Command::new("kill").args([&format!("-{signal}"), &id]).status();
		}
	}

	fn id(&self) -> Option<String> {
		self.process().as_ref().map(|process| process.id().to_string())
	}

	fn process(&self) -> MutexGuard<'_, Option<Child>> {
		self.process.lock().unwrap_or_else(PoisonError::into_inner)
	}

	fn command(&self, program: &Path) -> Command {
		let mut command = match self.user {
			Some(user) => {
				let mut command = Command::new("setpriv");
				command
					.arg(format!("--reuid={user}"))
					.arg(format!("--regid={user}"))
					.arg("--clear-groups")
					.arg(program);
				command
			},
			None => Command::new(program),
		};
		command.current_dir(&self.dir).env("LC_ALL", "C");
		command
	}

	fn socket_in_url(&self) -> String {
		let path = self.dir.to_string_lossy().into_owned();
		path.trim_start_matches('/').replace('/', "%2F")
	}
}

impl Drop for Server {
	fn drop(&mut self) {
		self.go_on();
		self.kill();
		let _ = fs::remove_dir_all(&self.dir);
	}
}

/// Where PostgreSQL's programs are: on the path, or where distributions put them.
fn binaries() -> Option<PathBuf> {
	static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
	let find = || {
		let path = std::env::var_os("PATH").unwrap_or_default();
		let mut places: Vec<PathBuf> = std::env::split_paths(&path).collect();
		let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
		let mut versions: Vec<PathBuf> = versions.map(|dir| dir.path().join("bin")).collect();
		versions.sort();
		places.extend(versions.into_iter().rev());
		places.extend(["/usr/local/pgsql/bin", "/opt/homebrew/bin"].map(PathBuf::from));
		let all = ["initdb", "postgres", "psql", "pg_isready"];
		let found = places.into_iter().find(|dir| all.iter().all(|name| dir.join(name).is_file()));
		if found.is_none() {
			let must = std::env::var_os(REQUIRE).is_some_and(|value| value == "1");
			assert!(!must, "{REQUIRE}=1, and there is no PostgreSQL on this machine");
			eprintln!(
				"SKIPPED: there is no PostgreSQL on this machine ({REQUIRE}=1 makes that fail)"
			);
		}
		found
	};
	FOUND.get_or_init(find).clone()
}

fn is_root() -> bool {
	let id = Command::new("id").arg("-u").output();
	id.is_ok_and(|id| String::from_utf8_lossy(&id.stdout).trim() == "0")
}
