// Pages starts a control plane that is full of history, with hosts and people
// that are played, to look at its pages.
package main

func main() {}
