package main

import (
	"github.com/spf13/cobra"
)

func commandsCommand() *cobra.Command {
	return &cobra.Command{Use: "commands"}
}
