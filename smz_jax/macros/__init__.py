"""Macros: certain, recurring action sequences, mined from search trees and played games.

A macro is an open-loop action sequence (the literature's "option" with a fixed course). This
package reads trees and rows of play; it knows no network.
"""
