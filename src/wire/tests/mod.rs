//! What holds across the codecs: they agree with each other and with prost, read what clients send, survive the rest.

mod hostile;
mod lenient;
mod round_trip;
