//! `obtrace key`: makes API keys and hashes them; the key itself is shown once and kept nowhere.

use std::process::ExitCode;

use clap::Subcommand;

use crate::domain::auth::hash_key;

/// Characters of a key's random part.
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// Length of the random part: 30 of 62 characters are 178 bits.
const RANDOM_LENGTH: usize = 30;

#[derive(Debug, Subcommand)]
pub(super) enum KeyCommand {
    /// Prints a new key and the lines for the configuration file
    New {
        /// Tenant the key belongs to
        #[arg(long)]
        tenant: String,
        /// Name of the key in listings
        #[arg(long, default_value = "key")]
        name: String,
    },
    /// Prints the hash of a key read from stdin
    Hash,
}

pub(super) fn run(command: &KeyCommand) -> ExitCode {
    match command {
        KeyCommand::New { tenant, name } => {
            let key = new_key();
            println!("key (shown only now): {key}\n");
            println!("[[tenant.keys]]\nname = {name:?}\ntenant = {tenant:?}\nhash = \"{}\"", hash_text(&key));
            ExitCode::SUCCESS
        }
        KeyCommand::Hash => {
            let mut key = String::new();
            if let Err(error) = std::io::stdin().read_line(&mut key) {
                eprintln!("obtrace: the key cannot be read from stdin: {error}");
                return ExitCode::FAILURE;
            }
            println!("{}", hash_text(key.trim()));
            ExitCode::SUCCESS
        }
    }
}

/// `obt_`, 30 random characters, and a checksum of six, so that scanners can tell a key from other text.
fn new_key() -> String {
    let random: String =
        (0..RANDOM_LENGTH).map(|_| char::from(ALPHABET[rand::random_range(0..ALPHABET.len())])).collect();
    let mut sum = crc32fast::hash(random.as_bytes()) as usize;
    let mut check = String::new();
    for _ in 0..6 {
        check.push(char::from(ALPHABET[sum % ALPHABET.len()]));
        sum /= ALPHABET.len();
    }
    format!("obt_{random}{check}")
}

fn hash_text(key: &str) -> String {
    let hex: String = hash_key(key).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_their_form_and_differ() {
        let (one, two) = (new_key(), new_key());
        assert_ne!(one, two);
        assert_eq!(one.len(), 4 + RANDOM_LENGTH + 6);
        assert!(one.strip_prefix("obt_").unwrap().bytes().all(|b| b.is_ascii_alphanumeric()));
        // sha256 of "abc", from FIPS 180-2.
        let abc = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hash_text("abc"), abc);
    }
}
