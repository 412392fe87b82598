"""From trees and play to a table of macros, on the device."""
