//! Remembers where a panic happened, so that the exit reason can name it.

use std::any::Any;
use std::cell::RefCell;
use std::sync::Once;

thread_local! {
    static LAST_LOCATION: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Installs the process-wide hook once: it notes the location for [`take_location`] and logs one line, or leaves the
/// printing to the hook before it where no log is set up yet.
pub fn install_hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let former = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let location = info.location().map(ToString::to_string).unwrap_or_default();
            let message = message_of(info.payload());
            LAST_LOCATION.with(|last| last.borrow_mut().clone_from(&location));
            // Asked of the thread: a log that was set up for another one alone does not get it.
            let is_logged =
                tracing::dispatcher::get_default(|log| !log.is::<tracing::subscriber::NoSubscriber>());
            if is_logged {
                tracing::error!(location, message, thread = std::thread::current().name(), "panicked");
            } else {
                former(info);
            }
        }));
    });
}

/// Location of this thread's last panic, empty where the hook was not installed.
pub fn take_location() -> String {
    LAST_LOCATION.with(|last| std::mem::take(&mut *last.borrow_mut()))
}

/// The text of a panic payload.
pub fn message_of(payload: &(dyn Any + Send)) -> String {
    payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| String::from("(a panic without text)"))
}
