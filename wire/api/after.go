// Package api is what people and their programs say to the control plane, and
// hear from it.
package api

// After is the header of an answer to TailEvents that says which entry what
// comes begins behind: whoever lost the stream before anything came asks from
// there again.
const After = "Curfew-After"
