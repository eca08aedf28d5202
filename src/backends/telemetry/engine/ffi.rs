//! The C interface of the engine library: a path and SQL in, result bytes or ClickHouse's error text out; the only unsafe code.
//!
//! The header is not part of the package, so the declarations are written by hand after its published text (26.7):
//! handles are opaque pointers, strings travel with their length, every handle has exactly one destroy call.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::mem::ManuallyDrop;
use std::path::Path;
use std::ptr;
use std::sync::Arc;

use bytes::Bytes;
use libloading::os::unix::{Library as Loader, RTLD_LOCAL, RTLD_NOW};

use super::exception::{Exception, codes};

/// What a statement read and wrote, as ClickHouse reports it in `X-ClickHouse-Summary`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Rows read from storage.
    pub read_rows: u64,
    /// Bytes read from storage.
    pub read_bytes: u64,
    /// Rows written, those of views included; a block dropped as a repeat counts as well.
    pub written_rows: u64,
    /// Bytes written, those of views included.
    pub written_bytes: u64,
    /// Rows of the result.
    pub result_rows: u64,
    /// Time in the engine, nanoseconds.
    pub elapsed_ns: u64,
}

/// What the engine's parser says about a statement before it is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Classified {
    /// Number of statements in the text; 0 when it does not parse.
    pub statements: u32,
    /// Session control, file output, BACKUP, SYSTEM, KILL and the like.
    pub control: bool,
}

/// A named query parameter and its value in ClickHouse's escaped text form.
pub type Param = (String, Vec<u8>);

/// The loaded library. It is never unloaded: its threads run in its code until the process ends.
pub struct Library {
    _loader: ManuallyDrop<Loader>,
    api: Api,
}

/// One connection: a session of its own with settings of its own; runs one statement at a time.
pub struct Connection {
    library: Arc<Library>,
    handle: *mut RawConnection,
}

/// A streaming insert: nothing is committed before [`InsertStream::finish`]; dropping it cancels.
pub struct InsertStream<'c> {
    connection: &'c mut Connection,
    handle: *mut RawStream,
}

#[repr(C)]
struct RawConnectionBody {
    _private: [u8; 0],
}
type RawConnection = *mut RawConnectionBody;

#[repr(C)]
struct RawResult {
    _private: [u8; 0],
}

#[repr(C)]
struct RawStream {
    _private: [u8; 0],
}

/// `chdb_query_analysis_v1`.
#[repr(C)]
struct RawAnalysis {
    struct_size: u32,
    statement_count: u32,
    flags: u32,
    query_class: u32,
}

/// `CHDB_QUERY_CONTROL`.
const CLASS_CONTROL: u32 = 3;

type QueryWithParams = unsafe extern "C" fn(
    RawConnection,
    *const c_char,
    usize,
    *const c_char,
    usize,
    *const *const c_char,
    *const usize,
    *const *const c_char,
    *const usize,
    usize,
) -> *mut RawResult;
type InsertWithParams = unsafe extern "C" fn(
    RawConnection,
    *const c_char,
    usize,
    *const c_char,
    usize,
    *const *const c_char,
    *const usize,
    *const *const c_char,
    *const usize,
    usize,
) -> *mut RawStream;
type Classify = unsafe extern "C" fn(
    RawConnection,
    *const c_char,
    usize,
    *const c_char,
    usize,
    *mut RawAnalysis,
) -> c_int;
type ResultCount = unsafe extern "C" fn(*mut RawResult) -> u64;

struct Api {
    connect: unsafe extern "C" fn(c_int, *mut *mut c_char) -> *mut RawConnection,
    close: unsafe extern "C" fn(*mut RawConnection),
    query: QueryWithParams,
    destroy_result: unsafe extern "C" fn(*mut RawResult),
    buffer: unsafe extern "C" fn(*mut RawResult) -> *mut c_char,
    length: unsafe extern "C" fn(*mut RawResult) -> usize,
    error: unsafe extern "C" fn(*mut RawResult) -> *const c_char,
    elapsed: unsafe extern "C" fn(*mut RawResult) -> f64,
    rows_read: ResultCount,
    storage_rows_read: ResultCount,
    storage_bytes_read: ResultCount,
    rows_written: ResultCount,
    bytes_written: ResultCount,
    insert: InsertWithParams,
    append: unsafe extern "C" fn(*mut RawStream, *const c_void, usize) -> c_int,
    done: unsafe extern "C" fn(*mut RawStream) -> *mut RawResult,
    insert_error: unsafe extern "C" fn(*mut RawStream) -> *const c_char,
    destroy_insert: unsafe extern "C" fn(*mut RawStream),
    classify: Classify,
    set_signal_handlers: unsafe extern "C" fn(c_int),
}

// === impl Library ===

impl Library {
    /// Loads the library and keeps it from installing signal handlers of its own.
    ///
    /// # Errors
    /// The loader's text when the file cannot be loaded or lacks one of the functions.
    pub fn load(path: &Path) -> Result<Arc<Self>, String> {
        // SAFETY: loading runs the library's initialisers; the file is the engine the operator named, and nothing of
        // this process depends on state they might change before the engine starts.
        let loader = unsafe { Loader::open(Some(path), RTLD_NOW | RTLD_LOCAL) }.map_err(|e| e.to_string())?;
        let api = Api::resolve(&loader)?;
        // SAFETY: takes an int, keeps no pointer; called before the first connection as its documentation asks.
        unsafe { (api.set_signal_handlers)(0) };
        Ok(Arc::new(Self { _loader: ManuallyDrop::new(loader), api }))
    }

    /// Opens a connection. The first one starts the engine with `arguments` (`--path=…`, `--config-file=…`).
    ///
    /// # Errors
    /// When the engine refuses to start; it prints why on stderr.
    pub fn connect(self: &Arc<Self>, arguments: &[String]) -> Result<Connection, Exception> {
        let owned: Vec<CString> = std::iter::once("clickhouse")
            .chain(arguments.iter().map(String::as_str))
            .map(CString::new)
            .collect::<Result<_, _>>()
            .map_err(|_| Exception::new(codes::BAD_ARGUMENTS, "an engine argument holds a zero byte"))?;
        let mut argv: Vec<*mut c_char> = owned.iter().map(|a| a.as_ptr().cast_mut()).collect();
        let count = c_int::try_from(argv.len()).unwrap_or(c_int::MAX);
        // SAFETY: argv holds `count` NUL-terminated strings that outlive the call; the callee copies them.
        let handle = unsafe { (self.api.connect)(count, argv.as_mut_ptr()) };
        if handle.is_null() {
            return Err(Exception::new(codes::NETWORK_ERROR, "the engine refused a connection"));
        }
        Ok(Connection { library: Arc::clone(self), handle })
    }
}

// SAFETY: the functions may be called from any thread; the handles they work on are owned by `Connection`.
unsafe impl Send for Library {}
// SAFETY: as above; `Library` itself holds only function addresses and never changes.
unsafe impl Sync for Library {}

impl Api {
    fn resolve(loader: &Loader) -> Result<Self, String> {
        /// Looks one function up; the pointer stays valid because the library is never unloaded.
        fn get<T: Copy>(loader: &Loader, name: &str) -> Result<T, String> {
            // SAFETY: T is the function type of the published header of this major version; a missing name is an error.
            unsafe { loader.get::<T>(name.as_bytes()) }
                .map(|symbol| *symbol)
                .map_err(|e| format!("{name} is missing: {e}"))
        }
        Ok(Self {
            connect: get(loader, "chdb_connect")?,
            close: get(loader, "chdb_close_conn")?,
            query: get(loader, "chdb_query_with_params_n")?,
            destroy_result: get(loader, "chdb_destroy_query_result")?,
            buffer: get(loader, "chdb_result_buffer")?,
            length: get(loader, "chdb_result_length")?,
            error: get(loader, "chdb_result_error")?,
            elapsed: get(loader, "chdb_result_elapsed")?,
            rows_read: get(loader, "chdb_result_rows_read")?,
            storage_rows_read: get(loader, "chdb_result_storage_rows_read")?,
            storage_bytes_read: get(loader, "chdb_result_storage_bytes_read")?,
            rows_written: get(loader, "chdb_result_rows_written")?,
            bytes_written: get(loader, "chdb_result_bytes_written")?,
            insert: get(loader, "chdb_stream_insert_with_params_n")?,
            append: get(loader, "chdb_stream_append")?,
            done: get(loader, "chdb_stream_done")?,
            insert_error: get(loader, "chdb_stream_insert_error")?,
            destroy_insert: get(loader, "chdb_destroy_insert_stream")?,
            classify: get(loader, "chdb_classify_query_n")?,
            set_signal_handlers: get(loader, "chdb_set_signal_handlers_enabled")?,
        })
    }
}

// === impl Connection ===

// SAFETY: a connection may move between threads; `&mut self` on every call keeps it to one statement at a time.
unsafe impl Send for Connection {}

impl Connection {
    /// Runs one statement and returns the whole result in `format` (unless the text has a FORMAT of its own).
    ///
    /// # Errors
    /// ClickHouse's exception; the connection stays usable.
    pub fn query(&mut self, sql: &[u8], format: &str, params: &[Param]) -> Result<(Bytes, Stats), Exception> {
        let arrays = ParamArrays::new(params);
        // SAFETY: every pointer comes with its length, the arrays hold `count` entries and outlive the call, and the
        // connection is open because it closes only on drop.
        let result = unsafe {
            (self.library.api.query)(
                self.raw(),
                sql.as_ptr().cast(),
                sql.len(),
                format.as_ptr().cast(),
                format.len(),
                arrays.names.as_ptr(),
                arrays.name_lengths.as_ptr(),
                arrays.values.as_ptr(),
                arrays.value_lengths.as_ptr(),
                arrays.names.len(),
            )
        };
        QueryResult::take(&self.library, result)?.into_parts()
    }

    /// Runs a statement whose output does not matter.
    ///
    /// # Errors
    /// ClickHouse's exception.
    pub fn execute(&mut self, sql: &str) -> Result<(), Exception> {
        self.query(sql.as_bytes(), "Null", &[]).map(|_| ())
    }

    /// Asks the engine's parser what `sql` is, without running it.
    pub fn classify(&mut self, sql: &[u8]) -> Classified {
        let size = u32::try_from(size_of::<RawAnalysis>()).unwrap_or(16);
        let mut analysis = RawAnalysis { struct_size: size, statement_count: 0, flags: 0, query_class: 4 };
        // SAFETY: text with its length, no target database, and a report struct whose size is stated in its first field.
        let state = unsafe {
            (self.library.api.classify)(
                self.raw(),
                sql.as_ptr().cast(),
                sql.len(),
                ptr::null(),
                0,
                &raw mut analysis,
            )
        };
        let known = state == 0;
        Classified {
            statements: if known { analysis.statement_count } else { 0 },
            control: known && analysis.query_class == CLASS_CONTROL,
        }
    }

    /// Opens a streaming insert: `head` is the INSERT without its FORMAT clause, `format` the format of the data.
    ///
    /// # Errors
    /// ClickHouse's exception: no such table, no such setting, no right, unknown format.
    pub fn insert(
        &mut self,
        head: &[u8],
        format: &str,
        params: &[Param],
    ) -> Result<InsertStream<'_>, Exception> {
        let arrays = ParamArrays::new(params);
        // SAFETY: as in `query`; the returned handle is never null and is destroyed by `InsertStream::drop`.
        let handle = unsafe {
            (self.library.api.insert)(
                self.raw(),
                head.as_ptr().cast(),
                head.len(),
                format.as_ptr().cast(),
                format.len(),
                arrays.names.as_ptr(),
                arrays.name_lengths.as_ptr(),
                arrays.values.as_ptr(),
                arrays.value_lengths.as_ptr(),
                arrays.names.len(),
            )
        };
        let stream = InsertStream { connection: self, handle };
        match stream.error() {
            Some(error) => Err(error),
            None => Ok(stream),
        }
    }

    fn raw(&self) -> RawConnection {
        // SAFETY: `handle` points to the connection pointer the library allocated; it lives until `close`.
        unsafe { *self.handle }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // SAFETY: the handle came from `connect` and is closed exactly once, here.
        unsafe { (self.library.api.close)(self.handle) };
    }
}

// === impl InsertStream ===

impl InsertStream<'_> {
    /// Hands a piece of data over; blocks while the engine is behind.
    ///
    /// # Errors
    /// The exception that made the stream fail; nothing more can be appended.
    pub fn append(&mut self, data: &[u8]) -> Result<(), Exception> {
        if data.is_empty() {
            return Ok(());
        }
        // SAFETY: the stream is open and the engine copies `data` before it returns.
        let state = unsafe { (self.api().append)(self.handle, data.as_ptr().cast(), data.len()) };
        if state == 0 { Ok(()) } else { Err(self.failure()) }
    }

    /// Commits what was appended.
    ///
    /// # Errors
    /// ClickHouse's exception. Blocks that were full before the error stay, as in ClickHouse: a repeat under the same
    /// deduplication token drops them.
    pub fn finish(self) -> Result<Stats, Exception> {
        // SAFETY: the stream is open; the result is owned by `QueryResult`, the handle still by `self`.
        let result = unsafe { (self.api().done)(self.handle) };
        QueryResult::take(&self.connection.library, result).map(|r| r.stats())
    }

    fn failure(&self) -> Exception {
        self.error().unwrap_or_else(|| {
            // SAFETY: as in `finish`; on a failed stream it returns the reason.
            let result = unsafe { (self.api().done)(self.handle) };
            match QueryResult::take(&self.connection.library, result) {
                Err(error) => error,
                Ok(_) => Exception::new(codes::LOGICAL_ERROR, "the insert stream failed without a reason"),
            }
        })
    }

    fn error(&self) -> Option<Exception> {
        // SAFETY: the handle is valid until drop; the text is copied at once.
        let text = unsafe { (self.api().insert_error)(self.handle) };
        read_text(text).map(|t| Exception::parse(&t))
    }

    fn api(&self) -> &Api {
        &self.connection.library.api
    }
}

impl Drop for InsertStream<'_> {
    fn drop(&mut self) {
        // SAFETY: destroyed exactly once; cancels first when it was not finished.
        unsafe { (self.api().destroy_insert)(self.handle) };
    }
}

// === impl QueryResult ===

/// Owns a result handle; the bytes of a large result are lent out from it instead of being copied.
struct QueryResult {
    library: Arc<Library>,
    handle: *mut RawResult,
}

// SAFETY: a result is a plain buffer after the call that made it; nothing else holds its handle.
unsafe impl Send for QueryResult {}
// SAFETY: shared access only reads the buffer.
unsafe impl Sync for QueryResult {}

impl QueryResult {
    fn take(library: &Arc<Library>, handle: *mut RawResult) -> Result<Self, Exception> {
        if handle.is_null() {
            return Err(Exception::new(codes::LOGICAL_ERROR, "the engine returned no result"));
        }
        let result = Self { library: Arc::clone(library), handle };
        // SAFETY: the handle is valid until drop; the text is copied at once.
        match read_text(unsafe { (result.library.api.error)(handle) }) {
            Some(text) => Err(Exception::parse(&text)),
            None => Ok(result),
        }
    }

    fn stats(&self) -> Stats {
        let (api, handle) = (&self.library.api, self.handle);
        // SAFETY: plain getters on a valid handle.
        unsafe {
            Stats {
                read_rows: (api.storage_rows_read)(handle),
                read_bytes: (api.storage_bytes_read)(handle),
                written_rows: (api.rows_written)(handle),
                written_bytes: (api.bytes_written)(handle),
                result_rows: (api.rows_read)(handle),
                elapsed_ns: ((api.elapsed)(handle).max(0.0) * 1e9) as u64,
            }
        }
    }

    fn into_parts(self) -> Result<(Bytes, Stats), Exception> {
        let stats = self.stats();
        Ok((Bytes::from_owner(self), stats))
    }
}

impl AsRef<[u8]> for QueryResult {
    fn as_ref(&self) -> &[u8] {
        let api = &self.library.api;
        // SAFETY: buffer and length belong together and stay unchanged until the handle is destroyed on drop.
        unsafe {
            let (start, length) = ((api.buffer)(self.handle), (api.length)(self.handle));
            if start.is_null() || length == 0 {
                return &[];
            }
            std::slice::from_raw_parts(start.cast_const().cast(), length)
        }
    }
}

impl Drop for QueryResult {
    fn drop(&mut self) {
        // SAFETY: destroyed exactly once.
        unsafe { (self.library.api.destroy_result)(self.handle) };
    }
}

/// The pointer arrays the parameter calls want; borrows from the parameters.
struct ParamArrays {
    names: Vec<*const c_char>,
    name_lengths: Vec<usize>,
    values: Vec<*const c_char>,
    value_lengths: Vec<usize>,
}

impl ParamArrays {
    fn new(params: &[Param]) -> Self {
        Self {
            names: params.iter().map(|(name, _)| name.as_ptr().cast()).collect(),
            name_lengths: params.iter().map(|(name, _)| name.len()).collect(),
            values: params.iter().map(|(_, value)| value.as_ptr().cast()).collect(),
            value_lengths: params.iter().map(|(_, value)| value.len()).collect(),
        }
    }
}

fn read_text(text: *const c_char) -> Option<String> {
    if text.is_null() {
        return None;
    }
    // SAFETY: the library returns NUL-terminated text that lives as long as its handle, which the caller holds.
    let text = unsafe { CStr::from_ptr(text) };
    (!text.is_empty()).then(|| text.to_string_lossy().into_owned())
}
