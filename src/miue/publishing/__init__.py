"""The book: runs become pages, pages become a leaderboard and claims, and all of it is rendered and checked."""
